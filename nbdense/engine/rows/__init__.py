"""What each row of the layer table does, forward, backward and in the update."""
