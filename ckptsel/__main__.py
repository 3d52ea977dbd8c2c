"""`python -m ckptsel`."""

from ckptsel.cli import main

if __name__ == "__main__":
    main()
