"""The Hub room: everything a checkpoint needs to run, flat, so that the code can travel with the weights."""
