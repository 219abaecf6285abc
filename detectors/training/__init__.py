"""How the shipped detector is trained. Nothing at run time imports it."""
