"""The mark of clips: a keyed pattern added to latents in the last denoising step, read from pixels and key alone."""
