"""`python -m nlp_ssl` is the console command."""

from nlp_ssl.cli import main

main()
