"""The arguments and the help of each command: light modules, which import the work when it is asked for."""
