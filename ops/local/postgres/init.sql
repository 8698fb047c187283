-- Role and database of the program; it makes its schemas and tables itself. Run as superuser by both
-- stacks, and by ops/stack at every start: what is there already stays.
SELECT 'CREATE ROLE millrace LOGIN PASSWORD ''millrace'''
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'millrace') \gexec
SELECT 'CREATE DATABASE millrace OWNER millrace'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'millrace') \gexec
