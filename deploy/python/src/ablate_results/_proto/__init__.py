"""Code made from ablate.proto by deploy/python/generate.py; not written by hand."""
