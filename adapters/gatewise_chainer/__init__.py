"""Chainer: its layouts."""
