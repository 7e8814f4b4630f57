"""The commands of ``python -m mimic_core``, and what they say on the terminal."""
