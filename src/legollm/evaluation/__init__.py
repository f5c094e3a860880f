"""A model goes in, numbers come out.

likelihood   log p of a continuation, which text and choices both ask for; prompts: where a context ends, in tokens
windows      where a text is read, so that each token is predicted once; loss: two numbers and three units
choices      multiple choice by likelihood; samples: written answers and pass@k; questions: exact ones, beside chance
intervals    how sure a figure is; baselines: what to hold a loss against
xray         what heads, blocks and experts do with a text; report: one page that shows it all
"""
