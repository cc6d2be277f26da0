"""Exports: a released annotation set with its episodes, in the forms that other people's programs read.

What was said is found by time and laid on frames once (`spoken`); each form is one file. Nothing is made up: where
nothing was released there are no words, and what a form can not say is counted and named in the report.
"""
