"""Run the command line as `python -m launch`."""

from launch.cli import main

main()
