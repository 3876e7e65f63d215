"""The kernel tests once more, on arm64 code under an emulator."""
