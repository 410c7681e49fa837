"""The worker program: plays episodes of an environment for a `Pool`, as a process of its own.

It runs under any Python from 3.9 on, and needs the standard library, NumPy and the packages of the
environment: nothing of this project. So modules of this package import only one another, by
relative imports.
"""
