"""Work of each row of the layer table: forward, backward and in the update."""
