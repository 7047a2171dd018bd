"""AWS as tests need it: moto, and in front of it what moto lacks. README.md beside this folder says what that is."""
