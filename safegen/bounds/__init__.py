"""What work on a file may take, whatever the file says: time, memory."""
