-- Succeeds if the server can store something: a Redis without free memory rejects this script.
return { 1 }
