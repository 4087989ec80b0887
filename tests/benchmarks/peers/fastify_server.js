// Fastify with its defaults and no schema: parses the JSON and pushes it to an array.
'use strict'

const app = require('fastify')()
const jobs = []

app.post('/add-job', (request, reply) => {
  jobs.push(request.body)
  reply.code(202).send({ message: 'Job added' })
})

app.post('/add-jobs', (request, reply) => {
  for (const job of request.body) jobs.push(job)
  reply.code(202).send({ message: 'Jobs added' })
})

app.get('/queue-size', (request, reply) => {
  reply.send({ queueSize: jobs.length })
})

process.on('SIGTERM', () => process.exit(0))
app.listen({ host: '127.0.0.1', port: 0 }).then((address) => console.log(`listens on ${address}`))
