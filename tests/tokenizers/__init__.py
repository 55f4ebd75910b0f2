"""The tab's tokenizers held against Python's."""
