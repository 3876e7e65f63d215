"""The schemes of quantization: each is one object in one module, and `table` lists them."""
