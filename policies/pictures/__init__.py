"""What judges pictures: NudeNet, rules over pictures and words together, and repair."""
