"""What the mark has to know of a VAE: profiles, and how well a mark lives through a VAE's round trip."""
