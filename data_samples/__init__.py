"""Demo pool and tiny reference model of Mimicscope, with the scripts that make them."""
