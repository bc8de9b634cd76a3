"""What must hold of a saga, whatever happens to it?"""
