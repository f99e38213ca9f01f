"""The command line of GALIP. Installed as the package `galip_cli`."""
