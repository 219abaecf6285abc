"""Policy packs as YAML data."""
