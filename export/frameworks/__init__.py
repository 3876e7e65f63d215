"""Models of other libraries, whose objects are read where they are: torch, Keras, scikit-learn, Stable-Baselines3.

None of them is imported: a layer is known by the name of its class, and its weights become NumPy arrays.
"""
