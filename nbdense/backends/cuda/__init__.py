"""The backend of NVIDIA GPUs, by numba.cuda: imported when it is asked for."""
