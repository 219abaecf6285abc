"""The mark of stills: written into latents by gradients through the decoder."""
