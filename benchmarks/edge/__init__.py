"""C for microcontrollers beside its peers: flash, RAM and instructions, counted in an emulator."""
