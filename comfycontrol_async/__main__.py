"""`python -m comfycontrol_async`: the command line."""

from comfycontrol_async.cli import main

if __name__ == "__main__":
    main()
