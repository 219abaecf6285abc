"""What a clip showed, in 64 bytes: a mark pasted onto other pictures betrays itself."""
