"""What `train` writes: pipelines, their files, their scores, and the folder that holds them."""
