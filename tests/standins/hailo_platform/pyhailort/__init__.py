"""As in the vendor's package: what is not re-exported above is in `pyhailort.pyhailort`."""
