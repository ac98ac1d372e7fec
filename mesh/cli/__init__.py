"""The verbs of the command line. Each module is imported only by the verbs that it implements.

Every verb is a function from the parsed options to the exit status. People get text. With `--json`, programs get one
JSON document on standard output in every case: a `documents.FailureDocument` if the verb could not be carried out.
"""
