"""Networks as TFLite files and back, without TensorFlow; LiteRT, where it is installed, says that they are right."""
