"""`python -m nlp_ssl.cli` is the console command."""

from nlp_ssl.cli import main

main()
