"""How the embedded model is made: its world drawn, its VAE, text encoder and denoiser trained. Not used at run time."""
