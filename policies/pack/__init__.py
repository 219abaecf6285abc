"""Policy packs: read, merged, checked, compared and tried on their own examples."""
