"""The recipe of the weights that ship, with the world that they know; it goes when they are replaced."""
