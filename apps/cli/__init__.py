"""The command line: one module per part of the path; a verb parses words, calls one function, shows its answer."""
