"""How the shipped text classifier and probes are trained. Nothing at run time imports it."""
