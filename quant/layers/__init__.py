"""The layers of quantized networks: what they hold and check, and how the integer program runs each."""
