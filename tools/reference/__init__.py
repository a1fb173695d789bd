"""The reference of the site: a page for every public class and function, made from what they say of themselves."""
