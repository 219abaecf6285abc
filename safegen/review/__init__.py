"""What waits for a person: requests that a policy neither allows nor blocks."""
