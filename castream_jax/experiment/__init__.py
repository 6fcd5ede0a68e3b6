"""What one run is: its config, its folder, the model that the config describes, its checkpoints."""
