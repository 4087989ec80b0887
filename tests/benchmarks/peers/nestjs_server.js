// NestJS on Express with three endpoints, /add-job, /queue-size and /logs, over an array, and /add-jobs for arrays.
// With FLUSH_MS=N the array is emptied every N milliseconds, as it would be into a database; without, it only grows.
// Decorators are called as functions here, which is what TypeScript makes of them.
'use strict'

require('reflect-metadata')
const { Body, Controller, Get, HttpCode, Injectable, Module, Post, Query } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')

class LogService {
  jobs = []
  logs = []

  onModuleInit () {
    const every = Number(process.env.FLUSH_MS || 0)
    if (every) setInterval(() => { this.logs = this.jobs.splice(0) }, every)
  }

  addJob (data) {
    this.jobs.push({ message: 'Job processed', data, timestamp: new Date() })
  }
}

class LogController {
  constructor (service) {
    this.service = service
  }

  addJob (body) {
    this.service.addJob(body)
    return { message: 'Job added' }
  }

  addJobs (body) {
    for (const job of body) this.service.addJob(job)
    return { message: 'Jobs added' }
  }

  queueSize () {
    return { queueSize: this.service.jobs.length }
  }

  readLogs (limit) {
    return this.service.logs.slice(0, Number(limit) || 100)
  }
}

class AppModule {}

function decorate (target, name, ...decorators) {
  const descriptor = Object.getOwnPropertyDescriptor(target.prototype, name)
  for (const each of decorators) each(target.prototype, name, descriptor)
}

Injectable()(LogService)
Reflect.defineMetadata('design:paramtypes', [LogService], LogController)
Body()(LogController.prototype, 'addJob', 0)
Body()(LogController.prototype, 'addJobs', 0)
Query('limit')(LogController.prototype, 'readLogs', 0)
decorate(LogController, 'addJob', Post('add-job'), HttpCode(202))
decorate(LogController, 'addJobs', Post('add-jobs'), HttpCode(202))
decorate(LogController, 'queueSize', Get('queue-size'))
decorate(LogController, 'readLogs', Get('logs'))
Controller()(LogController)
Module({ controllers: [LogController], providers: [LogService] })(AppModule)

async function main () {
  const app = await NestFactory.create(AppModule, { logger: false })
  // Express takes 100 kB by default, which 1000 records pass.
  app.useBodyParser('json', { limit: '1mb' })
  process.on('SIGTERM', () => process.exit(0))
  await app.listen(0, '127.0.0.1')
  console.log(`listens on ${await app.getUrl()}`)
}

main()
