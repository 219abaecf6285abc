"""What a file is: credential, mark, ledger and statistics read independently, and the verdict that follows."""
