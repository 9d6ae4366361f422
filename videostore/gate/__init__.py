"""The only door to footage: people, grants, playback and export."""
