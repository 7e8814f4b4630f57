"""The screen of Mimicscope. Shows what ``mimic_core`` computes and adds no capability."""
