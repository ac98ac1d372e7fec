"""What the verbs of the command line do. Each module is imported only by the verb that is asked for.

Every verb is a function from the parsed options to the exit status. People get text; with `--json` programs get one
JSON document on standard output, whatever happens: where a verb cannot be carried out that is an `answers.Failed`.
"""
